package VMware::Control;

use strict;
use warnings;

use Exporter ();

use VMware::Control::Server ();
use VMware::Control::VM ();
use VMware::VmPerl ();

our $VERSION = '1.0.0';
our @ISA = ('Exporter');
our @EXPORT = @VMware::VmPerl::EXPORT;
our @EXPORT_OK = @EXPORT;
our %EXPORT_TAGS = (all => [@EXPORT]);

{
    no strict 'refs';
    *{$_} = \&{"VMware::VmPerl::$_"} for @EXPORT;
}

sub version { return VMware::VmPerl::version() }

sub constant { my (@arguments) = @_; return VMware::VmPerl::constant(@arguments) }

1;

__END__

=head1 NAME

VMware::Control - the older names of VMware::VmPerl

=head1 SYNOPSIS

    use VMware::Control;
    use VMware::Control::Server;
    use VMware::Control::VM;

    my $server = VMware::Control::Server::new($host, $port, $user, $password);
    $server->connect() or die join(': ', $server->get_last_error()), "\n";
    my $vm = VMware::Control::VM::new($server, '/vms/web/web.vmx');
    $vm->connect() or die join(': ', $vm->get_last_error()), "\n";

=head1 DESCRIPTION

Before VmPerl the scripting interface had the names C<VMware::Control>, C<VMware::Control::Server> and
C<VMware::Control::VM>. That is all that is publicly known of them. Here they are L<VMware::VmPerl>,
L<VMware::VmPerl::Server> and L<VMware::VmPerl::VM> with the same methods and constants under those names; what
their constructors take besides, and C<connect> without arguments, is this project's choice.

C<VMware::Control::Profiler>, C<::Keycode> and C<::VMScript> existed too. What they did is not known, so there are
none.

=head1 SEE ALSO

L<VMware::VmPerl>

=cut
