package VMware::VmPerl::ConnectParams;

use strict;
use warnings;

use VMware::VmPerl::Object ();

our $VERSION = '1.0.0';

sub new {
    my ($class, @values) = VMware::VmPerl::Object::_arguments(__PACKAGE__, @_);
    my %self;
    @self{qw(hostname port username password)} = @values;
    return bless \%self, $class;
}

# hostname(), get_hostname(), hostname($new), set_hostname($new), and so for the others.
for my $field (qw(hostname port username password)) {
    no strict 'refs';
    my $get = sub { my ($self) = @_; return $self->{$field} };
    my $set = sub { my ($self, $value) = @_; $self->{$field} = $value; return 1 };
    *{"get_$field"} = $get;
    *{"set_$field"} = $set;
    *{$field} = sub { return @_ > 1 ? $set->(@_) : $get->(@_) };
}

1;

__END__

=head1 NAME

VMware::VmPerl::ConnectParams - where to connect to, and as whom

=head1 SYNOPSIS

    use VMware::VmPerl::ConnectParams;

    # This machine, as the user that the script runs as; no password.
    my $params = VMware::VmPerl::ConnectParams::new();

    # Another machine.
    my $params = VMware::VmPerl::ConnectParams::new($host, $port, $user, $password);

=head1 DESCRIPTION

Any of the four may be undef.

=over

=item hostname

Name or numeric address. Without it: this machine, by its unix socket, else by TCP to 127.0.0.1.

=item port

TCP port; 0 or undef is C<authd.client.port> of F</etc/vmware/config>, else 902.

=item username, password

Without a name the gateway asks the kernel who is calling; that works on the same machine only.

=back

C<hostname()>, C<port()>, C<username()> and C<password()> read a value, or set it when given one;
C<get_hostname>, C<set_hostname> and so on do the same. Objects copy what they need when they connect: one set
of parameters serves many connections and may go before them.

=head1 SEE ALSO

L<VMware::VmPerl>

=cut
