package VMware::VmPerl::Server;

use strict;
use warnings;

use VMware::VmPerl::ConnectParams ();
use VMware::VmPerl::Object ();
use VMware::VmPerl::Reply ();

our $VERSION = '1.0.0';
our @ISA = ('VMware::VmPerl::Object');

sub new {
    my ($class) = VMware::VmPerl::Object::_arguments(__PACKAGE__, @_);
    return VMware::VmPerl::Object::_new($class);
}

sub connect {
    my ($self, $params) = @_;
    return $self->_run(sub { $self->_log_in($params) });
}

sub registered_vm_names {
    my ($self) = @_;
    my $names = $self->_run(sub {
        my $out = $self->_operation('VM_List', details => 0);
        my $vms = VMware::VmPerl::Reply::child($out, 'vms');
        return [ map { VMware::VmPerl::Reply::text($_, 'config') } VMware::VmPerl::Reply::children($vms || $out, 'vm') ];
    });
    return if !$names;
    return @$names;
}

sub is_registered {
    my ($self, $config) = @_;
    return $self->_run(sub {
        my $path = VMware::VmPerl::Reply::escape(config => $config);
        my $out = $self->_operation('VM_List', details => 0, configs => \"<config>$path</config>");
        my $vms = VMware::VmPerl::Reply::child($out, 'vms');
        return $vms && VMware::VmPerl::Reply::children($vms, 'vm') ? 1 : 0;
    });
}

sub register_vm {
    my ($self, $config) = @_;
    return $self->_run(sub { $self->_operation('VMRegister', config => $config); 1 });
}

sub unregister_vm {
    my ($self, $config) = @_;
    return $self->_run(sub { $self->_operation('VMUnRegister', config => $config); 1 });
}

sub get_resource {
    my ($self, $name) = @_;
    return $self->_run(sub {
        VMware::VmPerl::Reply::text($self->_operation('VMServerd_GetResource', name => $name), 'value');
    });
}

sub set_resource {
    my ($self, $name, $value) = @_;
    return $self->_run(sub { $self->_operation('VMServerd_SetResource', name => $name, value => $value); 1 });
}

# The text as it is, the reply as it is, also one that reports failure.
sub exec {
    my ($self, $xml) = @_;
    return $self->_run(sub {
        my $bytes = VMware::VmPerl::Reply::octets(request => $xml);
        # A second document would be answered too, and its reply be taken for that of the next call.
        (my $bare = $bytes) =~ s/<!--.*?-->|<!\[CDATA\[.*?\]\]>//gs;
        my $ends = () = $bare =~ m{</exec\s*>|<exec\s*/>}g;
        VMware::VmPerl::Object::_fail(INVALIDARGS => 'request: one document, not several') if $ends > 1;
        return $self->_exchange($bytes);
    });
}

1;

__END__

=head1 NAME

VMware::VmPerl::Server - the server and its list of virtual machines

=head1 SYNOPSIS

    use VMware::VmPerl;
    use VMware::VmPerl::Server;
    use VMware::VmPerl::ConnectParams;

    my $server = VMware::VmPerl::Server::new();
    if (!$server->connect(VMware::VmPerl::ConnectParams::new())) {
        my ($number, $text) = $server->get_last_error();
        die "cannot connect: $number: $text\n";
    }
    print "$_\n" for $server->registered_vm_names();

=head1 METHODS

A method that fails returns undef, or the empty list where it returns a list; C<get_last_error()> on the same
object then has the reason. Besides these there are C<disconnect>, C<is_connected>, C<get_last_error>,
C<set_timeout> and C<get_timeout>: L<VMware::VmPerl/OBJECTS>.

=over

=item new()

=item connect($params)

Logs in. On an object that is connected: error -12.

=item registered_vm_names()

The paths of the configuration files of all registered machines that the user may see. An empty list and error 0:
there are none. In scalar context: how many, or undef.

=item register_vm($config), unregister_vm($config)

1, or undef. A machine that is registered already: -20; something that is none: -11.

=item is_registered($config)

1 or 0; undef after a failure. (This project's addition, after the C function of that meaning.)

=item get_resource($name), set_resource($name, $value)

A figure of the host: C<system.cpu.number>, C<system.cpu.0.idlesec>, C<system.cpu.0.usedsec>, C<system.mem.size>,
C<system.mem.avail>, C<system.mem.active> (KB). Another name: -10. The server has none that can be set: -17.

=item exec($xml)

Sends any C<< <exec> >> document and returns the reply as text, also one that reports failure. undef only when
there was no reply. (This project's addition, after the C function of that meaning.)

=back

=head1 SEE ALSO

L<VMware::VmPerl>, L<VMware::VmPerl::VM>

=cut
