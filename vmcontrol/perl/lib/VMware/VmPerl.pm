package VMware::VmPerl;

use strict;
use warnings;

use Errno ();
use Exporter ();

use VMware::VmPerl::ConnectParams ();
use VMware::VmPerl::Constants ();
use VMware::VmPerl::Question ();
use VMware::VmPerl::Server ();
use VMware::VmPerl::VM ();
use VMware::VmPerl::Wire ();

our $VERSION = '1.0.0';
our @ISA = ('Exporter');
our @EXPORT = @VMware::VmPerl::Constants::NAMES;
our @EXPORT_OK = @EXPORT;
our %EXPORT_TAGS = (all => [@EXPORT]);

# The version of the part that talks: files of two installations may be mixed in one @INC.
sub version { return $VMware::VmPerl::Wire::VERSION }

die "Perl API Version does not match dynamic library version.\n" if version() ne $VERSION;

for my $name (@EXPORT) {
    my $value = $VMware::VmPerl::Constants::VALUE{$name};
    no strict 'refs';
    *{$name} = sub () { $value };
}

# constant($name, 0): the value; for an unknown name 0, and $! is EINVAL. The second argument is the
# one that constant functions made from C headers have; it has no meaning.
sub constant {
    my ($name) = @_;
    my $known = defined $name && exists $VMware::VmPerl::Constants::VALUE{$name};
    $! = $known ? 0 : Errno::EINVAL();    ## no critic: that is how it answers
    return $known ? $VMware::VmPerl::Constants::VALUE{$name} : 0;
}

1;

__END__

=head1 NAME

VMware::VmPerl - the VmPerl scripting interface, for vmserverd

=head1 SYNOPSIS

    use VMware::VmPerl;
    use VMware::VmPerl::ConnectParams;
    use VMware::VmPerl::Server;
    use VMware::VmPerl::VM;

    my $params = VMware::VmPerl::ConnectParams::new($host, $port, $user, $password);
    my $server = VMware::VmPerl::Server::new();
    $server->connect($params) or die join(': ', $server->get_last_error()), "\n";
    for my $config ($server->registered_vm_names()) {
        my $vm = VMware::VmPerl::VM::new();
        if (!$vm->connect($params, $config)) {
            my ($number, $text) = $vm->get_last_error();
            warn "$config: $number: $text\n";
            next;
        }
        print "$config is on\n" if $vm->get_execution_state() == VM_EXECUTION_STATE_ON;
    }

=head1 DESCRIPTION

Scripts that were written for the VmPerl module of VMware's products run with this one unchanged. It is a new
module, written from what is publicly known of the old one, in Perl alone: it talks to vmware-authd and vmserverd
itself and needs no C library. Where the old one's behaviour is not known, what it does is this project's choice.

Constructors may be called as functions, C<VMware::VmPerl::VM::new()>, or as methods, C<< VMware::VmPerl::VM->new >>.

=head1 OBJECTS

L<VMware::VmPerl::Server> and L<VMware::VmPerl::VM> objects have a connection of their own each. A method that fails
returns undef (a list: the empty list), and keeps the reason. Both have:

=over

=item get_last_error()

The pair of number and text of the last call on this object: C<(0, '')> after a success. In scalar context the number.

=item is_connected()

1 or undef. Does not change the last error.

=item disconnect()

So does letting go of the object.

=item set_timeout($milliseconds), set_timeout(VM_TIMEOUT_ID, $milliseconds), get_timeout()

How long a call may take, connecting included: 120000 unless it is set. What is looked up in the name service is
not counted.

=back

A copy of an object in another process (after fork) or thread counts as not connected there: two must not share one
connection. After an error -2, -7, -13 or -15 of a connected object it is not connected any more; C<connect> may be
called again.

=head1 CONSTANTS

All are exported. They can also be called as C<VMware::VmPerl::VM_EXECUTION_STATE_ON>, and read by name with
C<VMware::VmPerl::constant('VM_EXECUTION_STATE_ON', 0)>.

=over

=item VM_EXECUTION_STATE_ON, _OFF, _SUSPENDED, _STUCK, _UNKNOWN

=item VM_POWEROP_MODE_HARD, _SOFT, _TRYSOFT

=item VM_PRODINFO_PRODUCT, _PLATFORM, _BUILD, _VERSION_MAJOR, _VERSION_MINOR, _VERSION_REVISION

=item VM_PRODUCT_WS, _GSX, _ESX, _SERVER, _UNKNOWN

=item VM_PLATFORM_WINDOWS, _LINUX, _VMNIX, _UNKNOWN

=item VM_TIMEOUT_ID

=item VM_E_SUCCESS, and the errors

=back

=head1 ERRORS

    VM_E_NOMEM          -1    VM_E_NOEXECVMAUTHD   -9   VM_E_NOTSUPPORTED           -17
    VM_E_NETFAIL        -2    VM_E_NOPROPERTY     -10   VM_E_INVALIDVM              -18
    VM_E_INVALIDARGS    -3    VM_E_NOSUCHVM       -11   VM_E_VMINITFAILED           -19
    VM_E_NOACCESS       -4    VM_E_ALREADYCONNECTED -12 VM_E_VMEXISTS               -20
    VM_E_NOTCONNECTED   -5    VM_E_DISCONNECT     -13   VM_E_VMBUSY                 -21
    VM_E_BADVERSION     -6    VM_E_BADRESPONSE    -14   VM_E_INSUFFICIENT_RESOURCES -22
    VM_E_TIMEOUT        -7    VM_E_GARBAGE        -15   VM_E_PROXYFAIL              -23
    VM_E_BADSTATE       -8    VM_E_NEEDINPUT      -16   VM_E_UNSPECIFIED           -999

A text is the text of the number, then perhaps a colon and a detail. -9 is never raised: this module starts no
program.

=head1 WHERE IT CONNECTS TO

Without a host name: to the unix socket C<authd.local.socket> of F</etc/vmware/config> (F</run/vmware/authd.sock> unless
it is set; an empty value is none), then by TCP to 127.0.0.1 and ::1. The port is the one given, else
C<authd.client.port> of that file, else 902; with another port than that one the socket is not tried, for it belongs to
another instance. Without a user name the gateway asks the kernel who is calling, which works on the same machine
only.

TLS starts when the gateway's banner asks for it; it needs the module L<IO::Socket::SSL> (Debian:
libio-socket-ssl-perl). Certificates are self-signed as a rule: the first one seen of a host and port is kept in
F<~/.vmware/known_hosts>, and another one later is error -2 whose text names the line to remove. The C library uses the
same file. A login on this machine without host and user name sends no secret, and there certificates are not looked
at.

=head1 ENVIRONMENT

Not looked at in taint mode, nor when real and effective user or group differ.

=over

=item VMSERVERD_ROOT

The directory of an instance (C<--root>): its F<etc/vmware/config> is read, and its F<run/vmware/authd.sock> is the
socket.

=item VMSERVERD_KNOWN_HOSTS

The file of certificates seen.

=back

=head1 STRINGS

Arguments are character strings or UTF-8 octets: a string that is no UTF-8 as octets, such as C<"\x{e4}">, is
characters. Surrogates and what XML cannot carry are -3. What comes back is UTF-8 octets.

=head1 SEE ALSO

L<VMware::VmPerl::Server>, L<VMware::VmPerl::VM>, L<VMware::VmPerl::ConnectParams>, L<VMware::VmPerl::Question>;
L<VMware::Control> for the older family of names.

=head1 LICENCE

MIT or Apache-2.0, at your choice. An independent project, not made or endorsed by VMware.

=cut
